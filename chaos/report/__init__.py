"""The report of a chaos run: for a terminal, for scripts, and as one page that can be mailed. It only reads a record.

    figures   what follows from a record: how long a fault lasted, how long recovery took, what is left in doubt
    words     the same in sentences, so that terminal and page say the same
    terminal  tables for `saga chaos run` and `saga chaos show`
    data      JSON, there and back
    timeline  what the page draws, in seconds and shares: windows of samples, lanes of faults
    page      the HTML: no resource from elsewhere, nothing that needs a server
    sums      many runs together: tables for docs/reliability.md

`saga chaos show` reads records that were kept, and `make docs` draws the tables of docs/reliability.md.
"""
