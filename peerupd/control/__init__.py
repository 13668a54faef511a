"""The hall: every verb once (`operations`), and the assemblers that make a node or a relay of the rooms below."""
