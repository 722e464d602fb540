"""Output of the customer's processes on its way to the parent: never in their way, bounded, counted, masked, and sealed where asked."""
