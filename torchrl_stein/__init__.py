"""Stein variational and Wasserstein policy optimization as TorchRL components."""
