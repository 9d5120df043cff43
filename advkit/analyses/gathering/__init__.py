"""From files of many runs to groups, pairs and cells."""
