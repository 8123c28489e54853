# One line that each rule must find, and one beside it that it must not. Never run, never imported.
import json
# ruleid: code-from-data
import pickle
# ruleid: another-way-out
import requests
import subprocess


def view(request, rows, column):
    # ruleid: request-into-query
    rows.filter(**request.GET.dict())
    # ruleid: request-into-query
    rows.order_by(request.query_params["ordering"])
    # ok: request-into-query
    rows.filter(name=request.GET["name"])
    # ruleid: sql-from-values
    column.execute("SELECT %s" % request)
    # ok: sql-from-values
    column.execute("SELECT %s", [request])


# ruleid: csrf-off
@csrf_exempt
def form(request):
    # ruleid: code-from-data
    eval(request.body)
    # ok: code-from-data
    json.loads(request.body)
    # ruleid: a-program-is-started
    subprocess.run(["ls"])
    # ruleid: markup-from-text
    mark_safe(request.body)
    # ok: markup-from-text
    format_html("<b>{}</b>", request.body)


def call(key, client):
    # ruleid: secret-into-text
    log.info("key %s", key.secret.reveal())
    # ok: secret-into-text
    log.info("key %s", key.secret)
    # ruleid: tls-unverified
    client.get("https://example.com", verify=False)
    # ok: tls-unverified
    client.get("https://example.com", verify=True)
