"""A network on images of any size: whole, strip by strip with the same result, or in blended tiles."""
