"""Tortures a real stack and judges what its clients were told: ``make torture MINUTES=... SEED=...``.

    torture    one run: a stack, clients, faults, the final reading, the judgement
    clients    what asks, in processes of its own; others and flood ask at a fixed rate, and as fast as they can
    workload   chooses what is asked
    recorder   keeps what was asked and answered
    nemesis    does the harm; with disk (one that can be filled), orphans (supervisord killed), damage (bytes flipped)
    probe      measures how soon all is served again
    provoke    what is provoked at the end, on a stage: by owners, numbers and troubles, with raw and writer for hands
    report     figures, and the checker's judgement
    interrupt  a signal that ends a run
"""
