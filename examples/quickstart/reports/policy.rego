# Reports are for ann only.
package reports

default allow := false

allow if input.attributes.request.http.headers["x-user"] == "ann"
