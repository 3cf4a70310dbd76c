"""Where the values of a card come from: the driver's files, its table, and the vendor's tools."""
