"""Which members to take, at which weights, and at which temperature."""
