"""From a model's file to a session that runs it: conversion, weights shared by a host, provider."""
