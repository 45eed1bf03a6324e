"""Pure functions of tensors: tensors in, scalar out, no state."""
