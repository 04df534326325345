# Reports are for everybody who reads them.
package reports

default allow := false

allow if input.attributes.request.http.method == "GET"
