"""What all rooms stand on: errors, atomic files, devices, downloads, processes."""
