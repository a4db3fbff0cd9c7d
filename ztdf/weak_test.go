package ztdf

// Public keys that are well formed and not taken; their private ones are gone.
const weakRSA = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxI7AfxxXT9FsJBwWff7J
dE7CyCMQsDO3bZW7tHnOxbQwHlln1kqTjv6Fvo2yO+lyFLijjDo7EuwUfx8CvENO
UHu8OfhdL+UEWh4tSmrs0LGwyv1tAzrjBU4kWv61CTSlAP5erXIsgZSqfkSZXoYD
Lhw9Rz4t4rqDENXo+lR/6tJa/EcZmaH1WA/4TnYeztLQnJVdJ+IhduRwYs4uJvYV
udmp7FFEq64kyo9fGFjqpgaTjjdf8VwYQzRG5e/HPS8DOy0i/a27G6KAFVqPUToU
KsmCcoLM3wBVOIIIVRi5O2U+AxJY1yMuXlb/FkVXekAty9+W4ElqRHiZj2z/OLIC
WwIDAQAB
-----END PUBLIC KEY-----
`

const weakEC = `-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBXIG8YPUDkdlmsT5FyJZNVQGrueyS
JR2YHCRcerM3a2loyJr+oLUzftcrYnOHm1sPPHjjjbRYCaJ0LWFC4Y7PiK0AInnE
MafJ1Q78ryhc3xb/uoW94wO45KKRvsZuBVCLTdpPT6j3FzC9hknLsqRCwr3PLFRq
rGeSEyrV0gKOV5utjMo=
-----END PUBLIC KEY-----
`
