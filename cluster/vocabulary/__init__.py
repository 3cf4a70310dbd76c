"""The words that everything else is written in, on the wire too."""
