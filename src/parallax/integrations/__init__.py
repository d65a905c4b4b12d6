"""Parallax inside other packages: each is imported by its name, and imports that package.

Guarantees: nothing here is loaded by ``import parallax``.
May import: the public interface only, and the package that it is named after.
"""
