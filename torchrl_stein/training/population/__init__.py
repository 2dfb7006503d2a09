"""What the recipes of populations share: agent, collector, the loop, the choice of a particle."""
