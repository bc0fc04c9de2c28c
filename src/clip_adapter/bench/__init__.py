"""The benchmark: recipes to runs, runs to results, results to tables and figures.

What runs them and what writes pages needs the extra ``bench``, see :mod:`.extra`; recipes can be
listed without.
"""
