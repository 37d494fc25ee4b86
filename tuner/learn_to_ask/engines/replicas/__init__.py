"""Several replicas of one engine on a Ray cluster: what a node has, who gets which GPUs, who is alive, who is asked."""
