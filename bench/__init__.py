"""`python -m bench.run`: what the gateway costs, beside a bare relay and beside the vendor itself."""
