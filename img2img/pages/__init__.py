"""What is looked at in a browser: HTML pages, each one file that needs no other and no network."""
