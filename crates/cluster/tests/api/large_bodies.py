"""Sends bodies that are too large by requests and urllib, and says what came. Arguments: the URL, and how often."""

import json
import sys
import urllib.error
import urllib.request

import requests

HEADERS = {"content-type": "application/json"}


def by_requests(url, body):
    answer = requests.put(url, data=body, headers=HEADERS, timeout=30)
    return answer.status_code, answer.json()


def by_urllib(url, body):
    request = urllib.request.Request(url, data=body, headers=HEADERS, method="PUT")
    try:
        urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


url, times = sys.argv[1], int(sys.argv[2])
for megabytes in (1, 5, 20):
    for client in (by_requests, by_urllib):
        for _ in range(times):
            try:
                status, answer = client(url, b" " * (megabytes * 1_000_000))
                came = f"{status} {answer['detail']}"
            except Exception as error:
                came = repr(error)
            print(f"{client.__name__}, {megabytes} MB: {came}")
