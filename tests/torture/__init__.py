"""Tortures a real stack and judges what its clients were told: ``make torture MINUTES=... SEED=...``.

``recorder`` keeps what was asked and answered, ``workload`` chooses what is asked, ``clients`` asks it (in processes of
their own), ``nemesis`` does the harm, ``probe`` measures how soon all is served again, ``report`` puts figures and the
checker's judgement together, ``torture`` runs all of it.
"""
