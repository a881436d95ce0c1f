"""`python -m streamvggt` is `streamvggt`."""

from streamvggt.cli import main

raise SystemExit(main())
