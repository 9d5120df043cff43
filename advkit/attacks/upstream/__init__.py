"""What the adapted code of AutoAttack's authors needs: no parts, shared by several attacks."""
