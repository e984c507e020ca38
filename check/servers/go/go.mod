module lameduck-check-server

go 1.19
