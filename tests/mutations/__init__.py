"""Proves the proof: for every law switches that break it, and whether simulation and torture find each of them.

``switches`` are the breaks, in the code of ``services`` but not of it: each replaces a few functions while it is on, as
``switch`` says. ``known`` has for each a seed that finds it, ``stack`` turns it on in a round of torture.
``__main__`` counts in how many seeds each is found (``make mutants``); ``entry`` turns one on in the processes of a
real stack. Nothing of this is in what is installed, and no setting of the service knows of it.
"""
