module lameduck-peer

go 1.19
