"""Answers of the API, taken while things break, and held against the log one by one.

`questions.py` what is asked, and what the log says to it; `sessions.py` who asks; `judge.py` every
answer at its own position; `report.py` the page. The proof and the soak both work with it.
"""
