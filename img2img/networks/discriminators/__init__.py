"""Networks that tell real images from generated ones, and their configs."""
