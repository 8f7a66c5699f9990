"""Pure: what fleets, devices, bundles and rollouts are, and the rules between them."""
