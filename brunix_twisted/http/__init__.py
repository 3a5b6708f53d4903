"""HTTP/1.1 itself. Knows no route and no engine."""
