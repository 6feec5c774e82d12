"""The studies behind docs/performance.md: which runs are made, what is kept of them, and how it is shown.

    catalogue -> runs, each a process of its own -> docs/performance/NAME.json -> NAME.svg and a table on the page

Figures go from the run to the page without passing through anybody's hands: the page holds prose and marks, and what
stands between two marks is rendered from the JSON. So are the plots, which `--redraw` draws again without a run.
"""
