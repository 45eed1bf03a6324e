"""Small translators that imitate large ones: chosen, taught, and compared with their teachers. The function is `compress.compress`."""
