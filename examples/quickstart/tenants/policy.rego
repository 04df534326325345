# What a tenant has booked, it may use: `/t/<tenant>/<feature>`.
#
# All tenants have this policy, each with data of its own.
package tenant

default decision := {
	"allowed": false,
	"http_status": 402,
	"body": "this feature is not in your plan\n",
}

decision := {"allowed": true, "response_headers_to_add": {"x-plan": data.tenant.plan}} if {
	input.parsed_path[2] in data.tenant.features
}
