"""How far the search can be trusted: curves of full distillations, and what shorter ones say about them."""
