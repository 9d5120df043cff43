"""What commands share: options, progress, records, failures."""
