"""A seed of the simulation that finds each switch, so that a test can look at all of them within a minute.

Owns: these numbers. A seed that no longer finds its switch has taken another course, not lost its meaning:
``make mutants MUTANT=name`` names another. A switch that no seed finds says that nothing tests its law any more.
"""

KNOWN: dict[str, int] = {
    "answers_before_commit": 3,
    "shows_uncommitted": 7,
    "plain_adds_are_answered_at_once": 1,
    "reads_again_show_uncommitted": 7,
    "worker_says_committed_first": 3,
    "deletes_in_memory_only": 1,
    "clears_in_memory_only": 1,
    "gives_ids_again": 1,
    "skips_the_fence": 4,
    "router_takes_old_replies": 4,
    "serves_before_the_claim": 3,
    "skips_the_dedupe": 1,
    "forgets_sessions_at_load": 9,
    "session_in_the_next_batch": 9,
    "plain_adds_tell_of_nobody": 5,
    "accepts_past_deadline": 1,
    "remembers_too_briefly": 5,
    "retries_under_a_new_number": 3,
    "sends_casts_twice": 1,
    "stores_twice": 6,
    "takes_any_number": 3,
    "reads_overtake": 3,
    "lost_batches_are_not_missed": 3,
    "drops_the_order": 2,
    "shows_what_it_was": 2,
    "poison_spreads": 1,
    "crash_ends_the_process": 8,
    "loads_hold_up_others": 1,
    "router_takes_everything": 2,
    "gate_is_never_full": 12,
    "applies_in_part": 2,
    "decoder_raises": 2,
    "unreadable_is_empty": 1,
    "missing_is_empty": 1,
    "hung_are_left": 2,
    "orphans_stay": 1,
}
