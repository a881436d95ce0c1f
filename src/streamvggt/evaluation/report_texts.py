"""Fixed parts of the page of results."""

FIXTURES = (
    "<h2>Results on fixtures</h2><p class=warning>Their data were written by <b>streamvggt data fixtures</b>: scenes "
    "of the procedural world, and not the test sets whose names they have. They show that the programs work.</p>"
)
STYLE = """<style>
:root { color-scheme: light dark; --line: #8884; --quiet: #888; --ours: #4a90d922; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1320px; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .2rem .4rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
.name { text-align: left; white-space: normal; min-width: 11rem; }
th[colspan] { text-align: center; }
h3 { font-size: 15px; margin-bottom: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.ours { font-weight: 600; background: var(--ours); }
.source { color: var(--quiet); font-size: 12px; font-weight: normal; }
.warning { border-left: 4px solid #d33; padding-left: .8rem; }
figure { margin: .6rem 0; max-width: 620px; }
figcaption { color: var(--quiet); font-size: 13px; }
img { max-width: 100%; }
dt { float: left; width: 3rem; font-weight: 600; }
dd { margin: 0 0 .2rem 3rem; }
summary { cursor: pointer; padding: .2rem 0; }
</style>"""
