module local/inside

go 1.25
