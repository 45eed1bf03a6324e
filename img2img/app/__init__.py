"""The browser app: a page on which people translate, draw, paint label maps, explore a noise generator and watch runs; and its API."""
