module sage/mock-engine

go 1.23
