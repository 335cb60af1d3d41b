"""The worker process: claims steps, runs them, renews leases, sweeps up."""
