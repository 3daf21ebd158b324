module nac

go 1.26
