"""The work a cluster is measured with, and the rounds in which arms take turns."""
