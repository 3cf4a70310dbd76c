"""What a figure is: raw samples, interval, verdict, machine, and the file that keeps them."""
