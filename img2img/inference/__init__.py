"""Running translators over files."""
