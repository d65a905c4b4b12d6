"""Parallax inside other packages: each is imported by name, and imports its package.

Guarantees: nothing here is loaded by ``import parallax``. May import the public interface only.
"""
