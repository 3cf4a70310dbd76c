"""The tables of goals: what is measured, beside its baseline, its bare limit and its goal."""
