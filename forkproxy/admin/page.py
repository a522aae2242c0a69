"""The admin home page, and /stats?format=html: plain HTML without scripts, made once per request from the endpoint table."""

from __future__ import annotations

from forkproxy.admin.endpoints import ENDPOINTS, AdminEndpoint, Parameter

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

# A Content-Security-Policy for pages that need only their own style sheet and forms to this server.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
caption { text-align: left; font-weight: 600; padding: .5rem 0 }
th, td { border-top: 1px solid #8886; padding: .5rem .75rem; text-align: left; vertical-align: top }
form { margin: 0 }
label { display: grid; grid-template-columns: 12rem 1fr; gap: .5rem; margin: .25rem 0; align-items: center }
input, select, button { font: inherit; max-width: 20rem }
small { grid-column: 2; opacity: .75 }
summary { cursor: pointer }
pre { overflow-x: auto }
.state { font-variant: small-caps }
"""


def escape(text: str) -> str:
    """``html.escape``, whose module keeps a table of all the names of HTML (320 KiB) for its reverse."""
    return text.translate(_ENTITIES)


def _document(title: str, body: str) -> str:
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}</body></html>\n"
    )


def home(version: str, state: str) -> str:
    """The page at /: every endpoint with a link, or with a button when it changes something, and its parameters."""
    rows = "".join(_row(endpoint) for endpoint in ENDPOINTS if endpoint.path != "/")
    return _document(
        "forkproxy admin",
        f'<main><h1>forkproxy admin</h1><p>{escape(version)} · <span class="state">{escape(state)}</span></p>\n'
        '<table><caption>What can be asked and done here</caption><thead><tr><th scope="col">Path</th>'
        f'<th scope="col">Meaning</th></tr></thead>\n<tbody>\n{rows}</tbody></table></main>\n',
    )


def _row(endpoint: AdminEndpoint) -> str:
    path, name = escape(endpoint.path), escape(endpoint.path[1:])
    if endpoint.mutates:
        call = f'<form method="post" action="{path}"><button>{name}</button></form>'
    else:
        call = f'<a href="{path}">{name}</a>'
    parameters = ""
    if endpoint.parameters:
        method = "post" if endpoint.mutates else "get"
        fields = "".join(_field(endpoint, parameter) for parameter in endpoint.parameters)
        parameters = (
            f'<details><summary>Options</summary><form method="{method}" action="{path}">{fields}'
            f"<button>{name}</button></form></details>"
        )
    return f'<tr><th scope="row">{call}</th><td>{escape(endpoint.help)}{parameters}</td></tr>\n'


def _field(endpoint: AdminEndpoint, parameter: Parameter) -> str:
    name = escape(parameter.name)
    if parameter.choices is None:
        field = f'<input type="checkbox" name="{name}">'
    elif parameter.choices:
        options = "".join(f"<option>{escape(choice)}</option>" for choice in parameter.choices)
        field = f'<select name="{name}">{options}</select>'
    else:
        field = f'<input name="{name}">'
    return f"<label><span>{name}</span>{field}<small>{escape(parameter.help)}</small></label>"


def stats(text: str) -> str:
    """/stats?format=html: the text form on a page."""
    return _document("forkproxy statistics", f'<main><p><a href="/">admin</a></p><pre>{escape(text)}</pre></main>\n')
