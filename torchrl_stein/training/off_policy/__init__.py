"""What the off-policy recipes share: agent, replay, the loop, fine-tuning and composition."""
