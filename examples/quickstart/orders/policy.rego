# Who may do what with orders.
#
# The header `x-user` stands in for what a gateway has verified; never trust a client with it.
package orders

http := input.attributes.request.http

role := data.orders.roles[http.headers["x-user"]]

permitted if http.method in data.orders.methods[role]

# A decision may be a boolean, or say how to answer the client ...
default decision := {
	"allowed": false,
	"http_status": 401,
	"headers": {"content-type": "application/json", "www-authenticate": "Bearer realm=\"orders\""},
	"body": "{\"error\": \"who are you?\"}\n",
}

decision := {"allowed": false, "body": sprintf("a %s must not do this\n", [role])} if not permitted

# ... and what the service behind it is told.
decision := {"allowed": true, "headers": {"x-role": role}} if permitted
